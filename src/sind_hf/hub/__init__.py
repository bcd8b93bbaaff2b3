"""Checkpoints in and out: conversion of published weights, cards, pushes."""
