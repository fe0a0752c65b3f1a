"""vLLM as an engine: `adz serve` starts its OpenAI server with this package inside."""
