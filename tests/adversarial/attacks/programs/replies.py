"""The one door: everything that a reply can be made to carry."""

import ctypes
import os
import pickle
import socket
import sys

from .registry import attack

ROW = 7531.25


@attack("reply", codes="output-config", only="gate")
def config_record(job):
    """adds a record with a row's value"""
    return job.reply(config={"row": ROW})


@attack("reply", codes="output-extra-metric", only="gate")
def extra_metric(job):
    """adds a metric that nobody declared"""
    return job.reply(metrics={"row": ROW})


@attack("reply", codes="output-extra-metric", only="gate")
def value_in_a_name(job):
    """puts a row's value into the name of a metric"""
    return job.reply(metrics={"row 7531.25": 1.0})


@attack("reply", codes="output-extra-array", only="gate")
def extra_array(job):
    """adds an array"""
    return job.reply(arrays={"leak": job.numpy.full(4, ROW)})


@attack("reply", codes="output-shape", only="gate")
def wrong_shape(job):
    """replies an array of another shape, with rows in it"""
    return job.reply(main=job.numpy.full(64, ROW, dtype=job.numpy.float32))


@attack("reply", codes="output-dtype", only="gate")
def wrong_type(job):
    """replies an array of another type"""
    return job.reply(main=job.numpy.full(2, ROW, dtype=job.numpy.float64))


@attack("reply", codes="output-not-finite", only="gate")
def not_a_number(job):
    """writes a row's bits into the payload of NaN"""
    payload = job.numpy.array([0x7FC01D6B, 0x7FC01D6C], dtype=job.numpy.uint32).view(job.numpy.float32)
    return job.reply(main=payload)


@attack("reply", codes="output-not-finite", only="gate")
def infinite(job):
    """replies infinity"""
    return job.reply(main=job.numpy.array([job.numpy.inf, 1], dtype=job.numpy.float32))


@attack("reply", codes="output-not-finite", only="gate")
def infinite_metric(job):
    """replies a metric that is no number"""
    return job.reply(metrics={"loss": float("nan")})


@attack("reply", only="gate")
def hidden_zeros(job):
    """hides bits in the signs of zeros and in subnormal numbers; they leave as plain zeros"""
    bits = job.numpy.array([0x80000000, 0x00001D6B], dtype=job.numpy.uint32).view(job.numpy.float32)
    return job.reply(main=bits)


@attack("reply", codes="output-too-large", slow=True)
def oversize(job):
    """replies more than the plan allows"""
    return job.reply(main=job.numpy.full(4 << 20, ROW, dtype=job.numpy.float64))


@attack("reply", codes="app-reply-type")
def pickled_array(job):
    """replies an array whose bytes are a pickle that runs a program where it is read"""
    return job.reply(pickled=pickle.dumps(_Program()))


@attack("reply", codes="app-exception")
def forged_code(job):
    """writes an error frame itself, with a row's value as its code"""
    job.send({"op": "error", "code": f"row-{ROW}"})
    os._exit(0)


@attack("reply", codes="app-reply-type")
def forged_reply(job):
    """writes a reply frame itself, with a field that nobody declared"""
    job.send({"op": "reply", "content": {"row": ROW, "arrays": {}}})
    os._exit(0)


@attack("reply", codes="app-reply-type")
def endless_header(job):
    """announces a header of four gigabytes"""
    job.send_bytes(b"\xff" * 64)
    os._exit(0)


@attack("reply", codes="app-reply-type")
def nested_header(job):
    """sends a header nested so deep that a careless parser falls over"""
    text = b'{"op":"reply","content":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    job.send_text(text)
    os._exit(0)


@attack("reply", codes="app-exception")
def exception_text(job):
    """raises an exception whose text is a row's value"""
    raise RuntimeError(f"row {ROW}")


@attack("reply", codes="app-exception")
def exception_type(job):
    """raises an exception whose type is named after a row's value"""
    raise type("Row7531dot25Error", (Exception,), {})(str(ROW))


@attack("reply", codes="app-missing-dependency")
def missing_module(job):
    """imports a module named after a row's value"""
    __import__("row_7531_25")


@attack("reply", codes="app-exception")
def exit_code(job):
    """ends with a row's value as its exit code"""
    os._exit(75)


@attack("reply", codes="app-exception")
def own_signal(job):
    """ends by a signal"""
    ctypes.string_at(0)
    return job.reply()


@attack("reply", codes="app-exception")
def system_exit(job):
    """ends by SystemExit with a text"""
    sys.exit(f"row {ROW}")


@attack("reply", codes="app-reply-type")
def no_message(job):
    """replies something that is no message"""
    return {"row": ROW}


@attack("reply", codes="app-exception")
def close_channel(job):
    """closes its end of the channel and goes on"""
    for number in range(3, 64):
        try:
            socket.socket(fileno=number).close()
        except OSError:
            continue
    import time

    time.sleep(30)


class _Program:
    def __reduce__(self):
        return (os.system, ("touch /tmp/keyong-was-here",))
