"""What says how good scores are: metrics, their intervals, curves, calibration."""
