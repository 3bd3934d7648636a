"""Problems of reasoning-gym, judged in a sandbox."""
