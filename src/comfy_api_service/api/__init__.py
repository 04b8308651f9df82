"""The HTTP role: parse, call one use case, shape the answer. It never talks to ComfyUI and never queries."""
