"""Speed and memory beside what people use today; run by hand, never asserted in tests."""
