"""Every number of a run has one home: a field of one of these configs."""
