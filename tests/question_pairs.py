"""Pairs of questions: those that look alike and ask something else, and those that ask the same in another form."""

from __future__ import annotations

from itertools import combinations, permutations

_NUMBERS = [
    ("What is the dose of {} mg?", ("5", "50", "500", "5.0", "0.5", "-5", "five")),
    ("Who won in {}?", ("1998", "1989", "2018", "2081", "1898")),
    ("What is due within {} days?", ("14", "15", "41", "1.4", "fourteen")),
    ("How do I pay {} dollars?", ("1,000", "1000", "1.000", "10,000", "100")),
    ("What does section {} say?", ("1.2", "12", "1.2.1", "2.1", "I", "II")),
    ("What is 10{}?", ("²", "³", "2", "%", "‰", "°")),
    ("What happened on {}?", ("3 April", "4 March", "4/3/2020", "3/4/2020", "3 April 2020")),
    ("Which plan covers {} users?", ("10", "10k", "10 million", "10 billion", "ten")),
]
_WORDS = [
    ("What is {} hepatitis?", ("acute", "chronic", "not acute", "no acute")),
    (
        "Is the drug {} for children?",
        ("safe", "unsafe", "not safe", "never safe", "always safe", "only safe", "hardly safe"),
    ),
    ("What is the {} dose?", ("highest", "lowest", "usual", "minimum", "maximum", "first", "last", "next")),
    ("Which {} employees get a bonus?", ("all", "some", "no", "most", "few", "many", "any", "new", "other")),
    (
        "Is revenue {} costs?",
        ("above", "below", "more than", "less than", "at least", "at most", "equal to", "over", "under"),
    ),
    ("What is the weight in {}?", ("kg", "g", "mg", "µg", "lb", "lbs", "t", "tons", "Mg", "KG")),
    ("How far is it in {}?", ("km", "miles", "m", "mm", "nm", "feet")),
    ("What is the price in {}?", ("USD", "EUR", "CHF", "cents", "dollars", "€", "$")),
    ("What is the temperature in {}?", ("Celsius", "Fahrenheit", "kelvin", "C", "F", "°C", "°F")),
    ("{} signed the contract?", ("Who", "When", "Where", "Why", "How", "What")),
    (
        "Who {} the chief executive?",
        ("is", "was", "will be", "would be", "should be", "could be", "is not", "was not"),
    ),
    ("What did {} publish?", ("Curie", "Currie", "Marie Curie", "Pierre Curie", "M. Curie", "Curies")),
    (
        "What is the capital of {}?",
        ("Austria", "Australia", "Niger", "Nigeria", "Guinea", "Guyana", "Congo", "the Congo"),
    ),
    (
        "How is {} treated?",
        (
            "hypertension",
            "hypotension",
            "hyperthyroidism",
            "hypothyroidism",
            "type 1",
            "type 2",
            "hepatitis A",
            "hepatitis B",
            "hepatitis a b",
        ),
    ),
    ("What is due {} Monday?", ("before", "after", "on", "by", "until", "since", "from")),
    (
        "How many people {} the test?",
        ("passed", "failed", "took", "did not pass", "did pass", "almost passed"),
    ),
    ("What is {}?", ("C", "C++", "C#", "c", "CO", "Co", "co", "time", "the time", "man", "the man", "a man")),
    ("Is this law for {}?", ("US", "us", "U.S.", "EU", "it", "IT", "them")),
    (
        "What does {} do?",
        (
            "who",
            "WHO",
            "Apple",
            "apple",
            "Polish",
            "polish",
            "May",
            "may",
            "aids",
            "AIDS",
            "Turkey",
            "turkey",
        ),
    ),
    (
        "How do I {} the account?",
        ("open", "close", "lock", "unlock", "do", "undo", "not open", "reopen", "delete", "undelete"),
    ),
    ("Which side is {}?", ("left", "right", "not left", "up", "down", "top", "bottom", "port", "starboard")),
    (
        "What is the {} result?",
        (
            "first quarter",
            "second quarter",
            "Q1",
            "Q2",
            "Q3",
            "half-year",
            "annual",
            "monthly",
            "weekly",
            "daily",
        ),
    ),
    ("Do I {} insurance?", ("need", "have", "want", "want no", "not need", "still need", "no longer need")),
    ("{} I return it?", ("Can", "Must", "May", "Should", "Could", "Will", "Would")),
    ("¿Qué dosis {}?", ("máxima", "mínima", "diaria", "no diaria", "única")),
    ("Wie {} ist es?", ("hoch", "tief", "nicht hoch", "alt", "neu", "weit")),
]
_ORDERS = [
    ("Did {} acquire {}?", ("Alpha", "Beta", "Gamma")),
    ("Who is taller, {} or {} in metres?", ("Ann", "Bob")),
    ("Is {} cheaper than {}?", ("train", "bus", "plane")),
    ("How do I convert {} to {}?", ("PDF", "Word", "HTML")),
    ("What is {} minus {}?", ("7", "9", "12")),
    ("When does the flight from {} to {} leave?", ("Oslo", "Rome", "Paris")),
    ("Did {} sue {} over the patent?", ("Orion", "Vega", "Lyra")),
    ("Does {} cause {}?", ("stress", "pain", "fever")),
]
_BY_HAND = [
    ("Which birds that fly can swim?", "Which birds that can fly swim?"),
    ("Tell me how many dogs are barking", "How are many dogs barking?"),
    ("Can birds that fly swim?", "Birds that can fly swim?"),
    ("Is the drug that was approved safe?", "Was the drug that is approved safe?"),
    ("Is only botulism treated here?", "Is botulism treated only here?"),
    ("Is botulism not only treated here?", "Is botulism only not treated here?"),
    ("Who does Ada manage?", "Who manages Ada?"),
    ("Who did Ada fire?", "Who fired Ada?"),
    ("What is 5!?", "What is 5?"),
    ("What is nil??", "What is nil?"),
    ("Who owns Yahoo!", "Who owns Yahoos"),
    ("Please Please Me release year?", "Please Me release year?"),
    ("How do you please?", "How do you?"),
    ("Hello world output?", "world output?"),
    ("What's done?", "What is done?"),
    ("Will Smith win?", "will Smith win?"),
    ("IS attacks when?", "is attacks when?"),
    ("WHO guidance on masks?", "who guidance on masks?"),
    ("Do not resuscitate means what?", "Do resuscitate means what?"),
    ("Is it a no-fee account?", "Is it a fee account?"),
    ("Is a pre-tax figure given?", "Is a post-tax figure given?"),
    ("What is non-taxable?", "What is taxable?"),
    ("What is vitamin A?", "What is vitamin?"),
    ("What is the price without VAT?", "What is the price with VAT?"),
    ("Why is the sky blue, not red?", "Why is the sky red, not blue?"),
    ("Does A imply B?", "Does B imply A?"),
    ("How much is 3 x 4 + 5?", "How much is 3 + 4 x 5?"),
    ("What is 1-2?", "What is 1–2?"),
    ("What is x^2?", "What is x2?"),
    ("What is a.b?", "What is ab?"),
    ("What is a/b?", "What is b/a?"),
    ("Let's eat, grandma: who said it?", "Let's eat grandma: who said it?"),
    ("Did the woman without her man cry?", "Did the woman: without her, man cry?"),
    ("Is a resignation or re-signing due?", "Is a re-signing or resignation due?"),
    ("Do you know who won?", "Do you know who lost?"),
    ("Tell me what the dose is", "Tell me what the dose was"),
    ("Tell me what the dose is", "What was the dose?"),
    ("Tell me who the manager is not", "Who is the manager?"),
    ("Could you tell me when the shop opens?", "When the shop closes?"),
    ("Please list the exceptions", "Please list the rules"),
    ("How do I cancel, please?", "How do I not cancel, please?"),
    ("What is the fee, thanks?", "What is the free, thanks?"),
    ("Is Anna Bob's boss?", "Is Bob Anna's boss?"),
    ("Is Bob Anna boss?", "Is Bob Anna's boss?"),
    ("What is the dose in children under 2?", "What is the dose in children over 2?"),
    ("What is the dose for children?", "What is the dose for child?"),
    ("Who are the directors?", "Who is the director?"),
    ("What did he say before 2020?", "What did he say after 2020?"),
    ("How is the plan funded?", "Is the plan funded?"),
    ("Why isn't the plan funded?", "Why is the plan funded?"),
    ("Can't the plan be funded?", "Can the plan be funded?"),
    ("Won't it work?", "Want it work?"),
    ("What is Straße?", "What is Strasse?"),
    ("What is resume?", "What is résumé?"),
    ("What is a köpek?", "What is a kopek?"),
    ("Quelle est la dose ?", "What is the dose?"),
    ("Was ist das Gift?", "What is the gift?"),
    ("Was is the dose?", "Is the dose?"),
    ("What is the dose? Answer in German.", "What is the dose? Answer in French."),
    ("What is the dose? And the price?", "What is the dose?"),
    ("Explain the dose", "Explain the doses"),
    ("Explain briefly how it works", "Explain how it works"),
    ("Who is Ada?", "Who is Ada Lovelace?"),
    ("Who is J. Smith?", "Who is K. Smith?"),
    ("Is 0.10 > 0.9?", "Is 0.10 < 0.9?"),
    ("x >= 5 means?", "x > 5 means?"),
    ("Is it at 12 am?", "Is it at 12 pm?"),
    ("Is it 5 AM?", "Is it 5 A?"),
    ("What is the 1st rule?", "What is the 1 rule?"),
    ("What is rule 10 of 20?", "What is rule 20 of 10?"),
]
_ASKED = [
    "What is the dose for adults?",
    "When are the parcels returned?",
    "How is the drug given?",
    "Who is the manager?",
    "Why was the plan dropped?",
    "Where are the keys kept?",
    "Which fees are due in 2024?",
]
_INDIRECT = [
    ("What is the dose for adults?", "what the dose for adults is"),
    ("When are the parcels returned?", "when the parcels are returned"),
    ("How is the drug given?", "how the drug is given"),
    ("Who is the manager?", "who the manager is"),
    ("Why was the plan dropped?", "why the plan was dropped"),
]


def different_pairs() -> list[tuple[str, str]]:
    """Pairs with different answers, in both orders counted once."""
    pairs = [
        (template.format(one), template.format(other))
        for template, fillers in _NUMBERS + _WORDS
        for one, other in combinations(fillers, 2)
    ]
    for template, names in _ORDERS:
        for one, other in permutations(names, 2):
            pairs.append((template.format(one, other), template.format(other, one)))
    return list(dict.fromkeys([*pairs, *_BY_HAND]))


def same_pairs() -> list[tuple[str, str]]:
    """Pairs with one answer."""
    pairs = []
    for asked in _ASKED:
        bare = asked.rstrip("?")
        lower = asked[0].lower() + asked[1:]
        forms = [
            bare, lower, f"{bare} ?", f"  {asked}\n", asked.replace(" ", "  "), asked.replace(" ", "\u00a0", 1),
            f"Please, {lower}", f"Hello, {lower}", f"{bare}, please?", f"{asked[:4]}\u200b{asked[4:]}",
        ]  # fmt: skip
        pairs += [(asked, form) for form in forms]
    prefixes = (
        "Tell me",
        "Please tell me",
        "Can you tell me",
        "Could you please tell me",
        "I'd like to know",
    )
    pairs += [(asked, f"{prefix} {rest}") for asked, rest in _INDIRECT for prefix in prefixes]
    return [
        *pairs,
        ("What's the fee?", "What is the fee?"),
        ("Why don’t dogs bark?", "Why don't dogs bark?"),
        ("Why don't dogs bark?", "Why do not dogs bark?"),
        ("What is café?", "What is cafe\u0301?"),
    ]
