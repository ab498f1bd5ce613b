"""A stand-in for StarCraft II: its API over a websocket, and behind it a battle of the simulator.

game.py     one game: protobuf requests to answers
house.py    all games of a test, in threads of its process, and the faults that it wants; a folder that looks like
            StarCraft II
process.py  the executable: a websocket on the port that it is told, everything else is asked of the house
"""

from tests.sc2_standin.house import House

__all__ = ["House"]
