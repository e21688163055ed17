"""Open word lists, made-up words, and the split that keeps some of both for evaluation only."""

from __future__ import annotations

import random
import zlib

CITIES = """Paris Lisbon London Berlin Madrid Rome Vienna Prague Warsaw Oslo Helsinki Stockholm Copenhagen Dublin
Athens Budapest Zagreb Belgrade Sofia Bucharest Porto Seville Valencia Bilbao Milan Naples Turin Venice Florence
Bologna Genoa Munich Hamburg Cologne Dresden Leipzig Bremen Zurich Geneva Basel Bern Lyon Marseille Nice Toulouse
Bordeaux Nantes Lille Brussels Antwerp Ghent Bruges Amsterdam Rotterdam Utrecht Krakow Gdansk Riga Vilnius Tallinn
Reykjavik Edinburgh Glasgow Cardiff Belfast Manchester Liverpool Bristol Leeds York Oxford Cambridge Tokyo Osaka Kyoto
Sapporo Nagoya Seoul Busan Beijing Shanghai Shenzhen Taipei Bangkok Hanoi Manila Jakarta Singapore Delhi Mumbai
Chennai Kolkata Bangalore Karachi Lahore Dhaka Colombo Kathmandu Tehran Baghdad Dubai Doha Riyadh Amman Beirut Cairo
Tunis Algiers Casablanca Rabat Dakar Accra Lagos Abuja Nairobi Kampala Kigali Lusaka Harare Durban Pretoria Sydney
Melbourne Brisbane Perth Adelaide Hobart Auckland Wellington Toronto Montreal Vancouver Ottawa Calgary Quebec Boston
Chicago Seattle Denver Austin Dallas Houston Miami Atlanta Phoenix Detroit Portland Oakland Memphis Nashville Havana
Lima Quito Bogota Caracas Santiago Montevideo Asuncion Brasilia Recife Salvador Curitiba Cordoba Rosario Mendoza
Ankara Istanbul Izmir Tbilisi Yerevan Baku Tashkent Almaty Kyiv Odesa Lviv Minsk Moscow Malmo Bergen Aarhus""".split()
CITIES += """New York|San Francisco|Los Angeles|Buenos Aires|Rio de Janeiro|Cape Town|Hong Kong|Kuala Lumpur|Mexico City|
Sao Paulo|Tel Aviv|Abu Dhabi|Salt Lake City|New Delhi|San Diego|Las Vegas|Saint Petersburg|Ho Chi Minh City|Addis Ababa|
Port Louis|Santa Fe|San Jose|Den Haag|Novi Sad|Palma""".replace("\n", "").split("|")

NAMES = """Ana Ben Carla David Elena Felix Greta Hugo Ines Jonas Karin Leo Maria Nina Oscar Paula Quentin Rosa Simon Tara
Ulrich Vera Walter Xenia Yara Zoe Adam Bella Chris Diana Emil Fatima George Hanna Ivan Julia Kurt Lena Max Nora Olga
Peter Rita Sam Tom Ursula Victor Wendy Alex Bob Clara Dan Eva Frank Gina Henry Iris Jack Kate Liam Mia Noah Olivia Paul
Ruth Sara Tim Uma Vince Will Amir Bruno Chloe Dario Esther Finn Gloria Hassan Irene Javier Kenji Lucia Marco Nadia Omar
Priya Rafael Sofia Tariq Viktor Yuki Zara Alice Boris Cecilia Dmitri Edith Farid Gustav Helga Igor Jasmine Klaus Lars
Miriam Nils Otto Petra Ravi Stella Theo Anton Bianca Colin Dora Erik Fiona Gary Hilda Isaac Joan Kevin Laura Mark Nancy
Owen Pamela Robert Susan Thomas Vivian Aisha Bjorn Camille Diego Elias Freya Giulia Hiro Ingrid Jorge Kofi Leila Mateo
Ngozi Pablo Rosalind Sven Tamara Wanda""".split()

TOPICS = """football tennis chess climate energy elections inflation robotics gardening astronomy medicine education
tourism fashion music cinema painting history geology physics chemistry biology mathematics philosophy volcanoes
dinosaurs whales bees coffee chocolate bread cheese wine olives trains bicycles rockets satellites bridges castles
pyramids glaciers deserts rivers oceans coral forests wolves tigers penguins mushrooms photography poetry theatre
opera jazz guitars pianos sailing skiing rugby cricket basketball cycling marathons batteries lasers magnets lightning
rainbows earthquakes tornadoes comets galaxies gravity electricity magnetism vaccines insulin proteins genes bacteria
encryption compilers databases linux rust python semiconductors quantum relativity photosynthesis evolution printing
paper glass steel concrete bamboo silk cotton pottery origami calligraphy housing farming fishing mining shipping
aviation banking startups taxes pensions unemployment migration""".split()
ADJECTIVES = """solar quantum ancient modern electric organic medieval global local renewable nuclear digital marine
tropical arctic European African Asian roman greek urban rural public private early late classical artificial
natural military royal economic political genetic dark deep open free""".split()
PLAIN_NOUNS = """energy computing art music markets history sports travel health science film cars politics weather
transport food fashion games security intelligence matter law trade farming cities water literature medicine robots
networks warfare design film philosophy""".split()

ROOMS = """kitchen bedroom bathroom garage hallway garden office attic basement balcony living room|dining room|guest room|
kids room|laundry room|front porch|back yard|hall|studio|cellar|terrace|workshop""".replace("\n", "")
ROOMS = ROOMS.split("|")[0].split()[:-2] + ["living room"] + ROOMS.split("|")[1:]
SWITCHED = """light lamp lights fan heater radio speaker tv oven kettle printer radiator dishwasher television projector
humidifier sprinkler ceiling light|coffee machine|air conditioner|floor lamp|night light|washing machine|desk lamp|
air purifier|water pump""".replace("\n", "")
SWITCHED = SWITCHED.split("|")[0].split()[:-2] + ["ceiling light"] + SWITCHED.split("|")[1:]
OPENED = "blinds|curtains|window|garage door|shutters|gate|skylight|awning|roller blind|valve".split("|")
LOCKED = "front door|back door|gate|garage|safe|cellar door|side door|shed|main door|patio door".split("|")
DIALLED = "thermostat|heating|oven|dimmer|volume|boiler|fridge|freezer|humidity|brightness".split("|")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday tomorrow today tonight".split()
MONTHS = """January February March April May June July August September October November December""".split()
ITEMS = """apples pears plums oranges lemons figs grapes cherries coins stamps books pens pencils marbles shells cards
stickers eggs cookies muffins candles buttons beads stones flowers roses tulips seeds nuts tickets balloons toys cups
plates bottles keys badges ribbons feathers acorns""".split()
OBJECTS = """laptop umbrella camera bicycle guitar violin jacket backpack watch ring necklace scarf lantern telescope
suitcase notebook painting carpet mirror helmet tent kayak drone tablet keyboard microscope sofa table chair lamp hat
wallet phone ticket parcel letter package bottle cake""".split()
ACTIVITIES = """lunch|dinner|breakfast|coffee|meeting|team meeting|dentist appointment|doctor appointment|haircut|
yoga class|piano lesson|guitar lesson|project review|budget review|job interview|birthday party|book club|swim training|
football practice|parent evening|car service|vet visit|call|video call|workshop|standup|design review|gym|concert|
movie night|training|board meeting|sprint planning|picnic|hike|house viewing|choir rehearsal|chess club|eye test|
language class|status update|tax appointment|flight|train ride|brunch|barbecue|wedding|exam|lecture""".replace(
    "\n", ""
).split("|")
TICKERS = """AAPL MSFT GOOG AMZN TSLA NVDA META NFLX INTC AMD IBM ORCL SAP BMW VOW SHEL BP HSBC UBS KO PEP MCD NKE DIS V
MA JPM GS BAC WMT COST HD T VZ GE F GM BA CAT XOM CVX PFE MRK JNJ ABBV LLY UNH ADBE CRM PYPL UBER""".split()
ADVERBS = """quickly quietly slowly gently loudly happily calmly badly nearly almost soon later again never often
always twice inside outside upstairs downhill northward together apart alone""".split()

SPLICED = (CITIES, NAMES, TOPICS, PLAIN_NOUNS, ITEMS, OBJECTS, ADVERBS)

_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fr gr kr pl pr sh sk st th tr vl ch qu".split()
_VOWELS = "a e i o u a e i o ai ea ia io ou y".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m", "k", "th", "x", "nd", "sk", "rt", "ll"]


def split_of(text: str) -> str:
    """`train`, `dev` (looked at while tuning) or `test` (only for the final table), fixed by the text alone."""
    bucket = zlib.crc32(text.lower().encode()) % 16
    return "test" if bucket == 0 else "dev" if bucket == 1 else "train"


def made_up(rng: random.Random, capital: bool = True) -> str:
    """A pronounceable word that is in no list, such as `Vrothia`."""
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 2, 2, 2, 3)))]
    word = "".join(parts) + rng.choice(_CODAS)
    if len(word) < 4:
        word += rng.choice("nrls") + rng.choice(_VOWELS)
    return word.capitalize() if capital else word


def spliced(rng: random.Random, capital: bool = True) -> str:
    """The beginning of one listed word with the end of another: pieces of words that are held out are copied, too."""
    while True:
        head, tail = (rng.choice(rng.choice(SPLICED)) for _ in range(2))
        word = head[: rng.randint(1, len(head))] + tail[rng.randrange(len(tail)) :]
        if word.isalpha() and 3 <= len(word) <= 12:
            return word.capitalize() if capital else word.lower()


class Words:
    """Draws words of one split; everything a model must copy comes through here."""

    def __init__(self, rng: random.Random, split: str) -> None:
        self.rng = rng
        self.split = split
        self._lists: dict[int, list[str]] = {}

    def pick(self, words: list[str]) -> str:
        """A word of this split from an open list."""
        own = self._lists.get(id(words))
        if own is None:
            own = [word for word in words if split_of(word) == self.split] or words
            self._lists[id(words)] = own
        return self.rng.choice(own)

    def fresh(self, capital: bool = True) -> str:
        """A made-up word of this split."""
        make = spliced if self.rng.random() < 0.3 else made_up
        while split_of(word := make(self.rng, capital)) != self.split:
            pass
        return word

    def _open(self, words: list[str], made_up_share: float) -> str:
        return self.fresh() if self.rng.random() < made_up_share else self.pick(words)

    def city(self) -> str:
        rng = self.rng
        name = self._open(CITIES, 0.4)
        if rng.random() < 0.06:
            name = rng.choice(("New ", "Port ", "San ", "North ", "Old ", "Lake ", "Saint ", "Upper ")) + self.fresh()
        if rng.random() < 0.04:
            name += ", " + self._open(CITIES, 0.5)
        return name

    def name(self) -> str:
        return self._open(NAMES, 0.35)

    def full_name(self) -> str:
        return self.name() + (" " + self._open(NAMES, 0.8) if self.rng.random() < 0.25 else "")

    def topic(self) -> str:
        rng, draw = self.rng, self.rng.random()
        if draw < 0.35:
            return self.pick(TOPICS)
        if draw < 0.55:
            return f"{rng.choice(ADJECTIVES)} {self.pick(PLAIN_NOUNS)}"
        if draw < 0.65:
            return f"{self.pick(TOPICS)} in {self.city()}"
        if draw < 0.75:
            return f"the {rng.choice(('history', 'price', 'future', 'origin', 'rise'))} of {self.pick(TOPICS)}"
        if draw < 0.85:
            return self.full_name()
        return self.fresh(rng.random() < 0.6)

    def pick_topic(self) -> str:
        """A one-word subject for headlines and facts."""
        return self._open(TOPICS, 0.3)

    def room(self) -> str:
        return self.rng.choice(ROOMS)

    def device(self, kinds: list[str]) -> str:
        rng, draw = self.rng, self.rng.random()
        kind = rng.choice(kinds)
        if draw < 0.35:
            return kind
        if draw < 0.8:
            return f"{self.room()} {kind}"
        return f"{self.fresh(False)} {kind}"

    def title(self) -> str:
        rng, draw = self.rng, self.rng.random()
        activity = rng.choice(ACTIVITIES)
        if rng.random() < 0.25:
            activity = activity.capitalize()
        if draw < 0.3:
            return activity
        if draw < 0.65:
            return f"{activity} with {self.name()}"
        if draw < 0.75:
            return f"{self.name()}'s {rng.choice(('birthday', 'party', 'visit', 'concert', 'recital'))}"
        if draw < 0.85:
            return f"{self.fresh()} {rng.choice(('meeting', 'review', 'launch', 'demo', 'call'))}"
        return f"call {self.name()}"

    def day(self) -> str:
        rng, draw = self.rng, self.rng.random()
        if draw < 0.65:
            day = rng.choice(DAYS)
            return day if draw < 0.5 else day.lower()
        if draw < 0.72:
            return "next " + rng.choice(DAYS[:7])
        if draw < 0.93:
            return f"{rng.choice(MONTHS)} {rng.randint(1, 30)}"
        return f"20{rng.randint(24, 39)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"

    def time(self) -> str:
        rng, draw = self.rng, self.rng.random()
        if draw < 0.3:
            return f"{rng.randint(1, 12)} {rng.choice(('am', 'pm'))}"
        if draw < 0.5:
            return f"{rng.randint(1, 12)}{rng.choice(('am', 'pm'))}"
        if draw < 0.9:
            return f"{rng.randint(0, 23)}:{rng.choice((0, 15, 30, 45, 5, 10, 20, 50)):02d}"
        return rng.choice(("noon", "midnight", "half past nine", "ten o'clock", "six o'clock"))

    def symbol(self) -> str:
        if self.rng.random() < 0.35:
            return self.pick(TICKERS)
        while True:
            word = "".join(self.rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(self.rng.randint(2, 5)))
            if split_of(word) == self.split:
                return word

    def phrase(self, low: int, high: int) -> str:
        """A run of unrelated words: nothing but copying reproduces it."""
        rng = self.rng
        pools = (CITIES, NAMES, TOPICS, ITEMS, OBJECTS, ADVERBS, ADJECTIVES)
        return " ".join(
            self.fresh(rng.random() < 0.5) if rng.random() < 0.4 else self.pick(rng.choice(pools))
            for _ in range(rng.randint(low, high))
        )
