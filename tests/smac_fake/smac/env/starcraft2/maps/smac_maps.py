def get_smac_map_registry():
    return {"3m": {"limit": 60}, "2s3z": {"limit": 120}}
