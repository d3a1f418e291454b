"""Chapter 05: when does RL heal?"""
