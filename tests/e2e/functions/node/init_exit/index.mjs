// Ends before it takes its first invocation, without a word to Lambda.
process.exit(7);
