"""A fake of SMAC's package: what ``emix.envs.smac`` uses of it, over a battle of the simulator. A test puts its folder
on ``sys.path``."""
