"""Day-ahead hourly load forecasting as an ordinary Flower app."""
