"""What several test files share. Holds no test."""
