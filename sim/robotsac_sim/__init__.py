"""MuJoCo plant, simulated arm and virtual servo bus: a plug-in of robotsac."""
