#!/usr/bin/env bash
# Sourced by the scripts that take wheels.

# pip_reason LOG: why pip failed, in a few words.
pip_reason() {
  case $(<"$1") in
    *"DO NOT MATCH THE HASHES"*) echo "a file is not the one expected (sha256 differs)" ;;
    *"No space left"*) echo "the disk is full" ;;
    *"No matching distribution"*) echo "no network, or pip's index does not have it for this machine" ;;
    *) echo "pip failed" ;;
  esac
}
