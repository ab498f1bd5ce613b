"""Networks that several learners share."""
