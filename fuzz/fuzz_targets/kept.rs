#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| knock_agent::laws::hold("kept", bytes));
