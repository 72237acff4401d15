"""What public calls have in common: arguments are checked at once, numbers have names."""
