"""Quantizers: nf4, fp4 and int8 of bitsandbytes, torchao, hqq, gptq, awq."""
