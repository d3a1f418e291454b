"""RL: settings, episodes, advantages, GRPO and PPO."""
