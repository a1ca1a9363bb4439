from tapetum.system import notices


def test_only_long_jobs_are_told_of(monkeypatch):
    clock, said = [0.0], []
    monkeypatch.setattr(notices.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(notices, "notify", said.append)

    def job(seconds):
        said.clear()
        report = notices.progress_notices("decoded")
        for done in range(1, 2049):
            clock[0] += seconds / 2048  # exact
            report(done, 2048)
        return [line.split(" of ")[0] for line in said]

    assert job(4) == []
    assert job(6) == ["decoded 1,707", "decoded 2,048"]
    assert job(20) == ["decoded 512", "decoded 1,024", "decoded 1,536", "decoded 2,048"]
    assert said[-1] == "decoded 2,048 of 2,048 images; later runs reuse the result"
