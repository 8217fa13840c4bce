"""What a tester talks about: one class per noun."""
