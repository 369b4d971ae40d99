package worker

func hostileMain(string) {}
