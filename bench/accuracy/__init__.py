"""How far the planner's memory figures are from what engines really take."""
