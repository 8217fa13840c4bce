"""What a run leaves to read: HTML extras, timeline, provenance, failure bundles."""
