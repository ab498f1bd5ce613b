"""What SMAC's own heuristic wins: every agent attacks the nearest enemy until that is dead.

    python examples/heuristic.py [MAP ...] [--battles N]

To be held against the win rates of StarCraft II, for which SMAC has the same heuristic (``heuristic_ai``). With it an
agent is ordered to attack from wherever it stands, which no action can order.
"""

import argparse

from emix.envs.battle import StarCraft2Env


def play(env: StarCraft2Env) -> tuple[bool, float]:
    """Whether a battle is won, and its return."""
    env.reset()
    total, terminated, info = 0.0, False, {}
    while not terminated:
        reward, terminated, info = env.step([0] * env.n_agents)  # overwritten with what the heuristic does
        total += reward
    return bool(info["battle_won"]), total


def main() -> None:
    """A line for each map."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", nargs="*", default=["3m", "2s3z"], metavar="MAP")
    parser.add_argument("--battles", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.battles < 1:
        parser.error(f"--battles expects at least 1, got {arguments.battles}")
    print(f"{'map':16} {'won':>5} {'return':>7}   of {arguments.battles} battles")
    for name in arguments.maps:
        env = StarCraft2Env(map_name=name, seed=1, heuristic_ai=True)
        results = [play(env) for _ in range(arguments.battles)]
        won, returns = (sum(column) / len(results) for column in zip(*results, strict=True))
        print(f"{name:16} {won:5.2f} {returns:7.1f}")


if __name__ == "__main__":
    main()
