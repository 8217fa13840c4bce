"""Where the playbooks come from, running them, and what their events said."""
