"""The page of `t2i web`: draw side by side, watch runs, vote blind."""
