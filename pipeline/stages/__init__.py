"""The stages of a job, and what they are cut into."""
