#!/usr/bin/env bash
# Sourced by the scripts that download wheels.

# pip_reason LOG: prints why pip failed, in a few words.
pip_reason() {
  case $(<"$1") in
    *"DO NOT MATCH THE HASHES"*) echo "a file is not the expected one (its sha256 differs)" ;;
    *"No space left"*) echo "the disk is full" ;;
    *"No matching distribution"*) echo "no network, or pip's index does not have it for this machine" ;;
    *) echo "pip failed" ;;
  esac
}
