"""Speed and memory beside what people use today; run by hand, never timed in the test suite."""
