"""What runs next to the arm: control loop, uplink, supervisor."""
