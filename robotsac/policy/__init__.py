"""Policy bundles on the robot: contract, acceptance, inference."""
