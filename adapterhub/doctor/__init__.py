"""What `adz doctor` looks at: this machine, the home folder, the registry, what others need."""
