"""What does a federated training cost in communication and memory, for what accuracy?"""
