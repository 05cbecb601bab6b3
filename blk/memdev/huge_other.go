//go:build !linux

package memdev

func adviseHuge(*page) {}
