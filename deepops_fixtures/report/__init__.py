"""What a run leaves for a person to read: provenance, timeline, cluster picture, failure bundle,
HTML.

Reads the run's folder (journal, stages, deploy results, consoles) and plain records. Not for
pytest's hooks: ``reporting`` calls these from there.
"""
