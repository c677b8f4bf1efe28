"""The parts of the EC2 launcher: what is asked of AWS, and what runs on an instance."""
