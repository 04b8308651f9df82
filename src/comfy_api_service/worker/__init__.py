"""The worker role: claims jobs for backends, follows their prompts, stores results, rescues what was lost."""
