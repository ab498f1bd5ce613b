from pathlib import Path

import numpy as np

from emix.envs import battle

faults: list[str] = []
"""What befalls the next resets and steps, one each: "" nothing, "restart" what SMAC does where it has lost the
connection, "raise" an error of pysc2's."""
made: list["StarCraft2Env"] = []


class StarCraft2Env(battle.StarCraft2Env):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.arguments, self.force_restarts, self.closed = arguments, 0, False
        self.episodes = 0
        made.append(self)

    def reset(self):
        self.episodes += 1
        if self._fault() == "restart":
            self.force_restarts += 1
        return super().reset()

    def step(self, actions):
        if self._fault() == "restart":
            self.force_restarts += 1
            return 0, True, {}
        return super().step(actions)

    def get_obs_agent(self, agent_id):
        """With SMAC's 0 that its ``get_obs_size`` does not count."""
        seen = super().get_obs_agent(agent_id)
        return np.insert(seen, -1, 0) if self.arguments["obs_timestep_number"] else seen

    def save_replay(self):
        Path(self.replay_dir).mkdir(parents=True, exist_ok=True)
        (Path(self.replay_dir) / f"{self.map_name}_{self.episodes}.SC2Replay").touch()

    def close(self):
        assert not self.closed
        self.closed = True
        super().close()
        raise ConnectionError("the game does not answer to quit")

    def _fault(self):
        fault = faults.pop(0) if faults else ""
        if fault == "raise":
            raise ConnectionError("Socket error: the game is gone")
        return fault
