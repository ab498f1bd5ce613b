"""``sc2/<map>``: StarCraft II itself, over its own API, behind the interface of ``emix.envs.Env``.

The game plays; what agents see, may do and are paid is computed by the code of ``battle/<map>`` from the units that the
game reports. So the two are the same task but for the game's physics, which the simulator follows. It needs StarCraft
II with SMAC's maps, and the packages ``pys2clientprotocol`` and ``websocket-client`` (extra ``sc2``), but neither pysc2
nor SMAC.

locate.py      where the game and its maps are
connection.py  questions and answers over the game's websocket, each with a time-out
game.py        a process of the game
units.py       the units that it reports, as the battle's arrays
env.py         the environment: episodes, failures, replays
options.py     what a user may choose
packages.py    which packages are there, and what mends them
turns.py       games start one after the other

`emix sc2 check` plays both side by side:

scripts.py     what it has the agents do
check.py       the two battles and what the game says of its units
measures.py    what a battle tells of the rules, and what differs
"""
