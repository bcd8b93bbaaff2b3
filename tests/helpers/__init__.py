"""What several folders of tests share: tiny models, datasets and configurations, and comparisons."""
