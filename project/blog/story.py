"""What happens in Saltmere tonight: the entries that the commands `demo` and `chatter` write."""

from typing import NamedTuple


class Post(NamedTuple):
    """An entry to write. `minutes` is how long ago it was published."""

    section: str
    title: str
    text: str
    minutes: int = 0
    applause: int = 0
    pinned: bool = False
    draft: bool = False


#: What the gauge at the quay showed in the last hours, every twenty minutes.
GAUGE = [268, 291, 317, 338, 352, 361]

SECTIONS = ["Weather", "Harbour", "Town", "Festival"]

SO_FAR = [
    Post(
        "Town",
        "The school takes in the campers",
        "Forty-one people from the camp site on the dunes will spend the night in the gym. Dinner is at seven. What "
        "is missing: pillows, a piano tuner, and somebody who can explain the rules of the card game in row three.",
        minutes=83,
        applause=31,
    ),
    Post(
        "Weather",
        "Red warning for the whole coast",
        "The weather service has raised its warning from amber to red. The worst is expected within the next two "
        "hours, together with high water.",
        minutes=58,
        applause=4,
    ),
    Post(
        "Harbour",
        "Two yachts adrift, both caught",
        "The pilot boat had lines on them within nine minutes. Their owners watched from the window of the Anchor, "
        "and have been told what that round is going to cost.",
        minutes=47,
        applause=56,
    ),
    Post(
        "Town",
        "Stay away from the promenade",
        "Waves are breaking over the sea wall between the lido and the old customs house. The road is closed from "
        "Mill Lane on. Please don’t go to look: the fire brigade needs the space.\n\n"
        "The council’s flood line is open all night.",
        minutes=34,
        applause=88,
        pinned=True,
    ),
    Post(
        "Festival",
        "Fireworks put off to Sunday?",
        "Two sources, neither of them from the committee. Wait for a third.",
        minutes=26,
        draft=True,
    ),
    Post(
        "Festival",
        "The concert goes on, in the fish market",
        "The stage on the beach came down this afternoon, in good order and on purpose. The brass band has moved "
        "into the market hall and starts at eight. Bring a chair. Entry is free, as it was going to be.",
        minutes=19,
        applause=23,
    ),
    Post(
        "Weather",
        "Gusts of 104 km/h at the lighthouse",
        "The gauge on the gallery has passed the hundred for the first time in eleven years. The wind has backed to "
        "the south-west: good news for the boats in the inner basin, bad news for the limes on the promenade.",
        minutes=11,
        applause=7,
    ),
    Post(
        "Harbour",
        "Statement of the harbour master",
        "He has called back and wants to see the quotation before we print it. Publish when he says yes.",
        minutes=5,
        draft=True,
    ),
    Post(
        "Harbour",
        "Last ferry is in, all 212 aboard are well",
        "The Marguerite has made fast, an hour and ten minutes late. Captain Ruiz took her round the north side of "
        "the mole, “because that is where the water was”. Nobody is hurt. The café on the quay hands out tea.",
        minutes=3,
        applause=41,
    ),
]

STILL_TO_COME = [
    Post("Harbour", "The barrier is closed", "It took eleven minutes, two fewer than in the last exercise."),
    Post("Weather", "The glass is rising", "978 hPa and climbing. The worst should be behind us within the hour."),
    Post("Town", "Light again in the lower town", "The power is back. The clock on the church is wrong, as before."),
    Post("Festival", "“Louder than the storm”", "The band agrees to an encore. The market hall agrees to nothing."),
    Post("Harbour", "A seal on the slipway", "It is well, it is asleep, and it would like to be left alone."),
    Post("Town", "Bread until ten", "Sorensen’s bakery stays open for everybody who is out. The helpers don’t pay."),
]
