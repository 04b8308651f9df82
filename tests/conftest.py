"""For all tests."""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts a command in the background makes it ignore interrupts, and all of its children too:
    # those that are interrupted here would not notice.
    signal.signal(signal.SIGINT, signal.default_int_handler)
