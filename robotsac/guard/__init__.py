"""The guard owns the arm at bus rate; only it makes torque."""
