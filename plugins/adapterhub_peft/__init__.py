"""Methods of PEFT: lora, rslora, dora, ia3, prefix, prompt."""
