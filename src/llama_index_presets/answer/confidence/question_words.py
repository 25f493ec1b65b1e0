"""Question words and particles of languages whose stop words no analyzer drops, taken out of a question."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["without_question_words"]

# Of languages without spaces these stand inside the text, so the longer ones come first.
_UNSPACED: Final = re.compile(
    "|".join(
        (
            # Chinese, and Japanese in Han: who, what, which, how many, when
            "为什么|為什麼|什么时候|什麼時候|多长时间|多長時間|是不是|有没有|什么|什麼|怎么样|怎么|怎麼|怎样|如何",
            "哪里|哪儿|哪个|哪個|多少|多久|多长|几|幾|谁|誰|哪",
            "吗|嗎|呢|吧|的|了|是|在|有|和|与|於|于|何年|何時間|何時|何日|何曜日|何人|何回|何番|何度|何",
            # Japanese particles, auxiliaries and question words are written in hiragana
            "[\u3041-\u309f]+",
            # Thai
            "อย่างไร|เท่าไหร่|เท่าไร|เมื่อไหร่|เมื่อไร|บ่อยแค่ไหน|แค่ไหน|ที่ไหน|ทำไม|อะไร|ใคร|ไหน|กี่|หรือไม่|หรือ|ไหม|มั้ย",
            "โดย|ของ|และ|เป็น|คือ|ใน|ที่",
        )
    )
)
_SPACED_WORDS: Final = (
    # Arabic
    "ما ماذا من متى أين اين كيف كم هل لماذا أي اي في على إلى الى عن مع هو هي هذا هذه ذلك التي الذي أن ان كان تكون ",
    "يكون يتم عليه مرة",
    # Hindi
    "क्या कब कहाँ कहां कैसे कितना कितनी कितने कौन किस किसने किसे किसका क्यों बार है हैं था थी थे को का की के में पर से ने",
    "और यह वह होता होती होते होना रहता जाता जाती जाते करते रखते",
    # Turkish
    "ne nerede nereye kim kaç hangi nasıl neden niçin kadar zaman mı mi mu mü",
    # German
    "wann warum weshalb wieso wo wohin woher wer wem wen was wie viel viele vielen oft lange welche welcher welches",
    "welchem welchen man",
    # French
    "combien quand où pourquoi comment quel quelle quels quelles qui que quoi fréquence temps on a-t-il a-t-elle",
    # Spanish, Italian, Portuguese, Dutch
    "cuánto cuánta cuántos cuántas cuándo dónde cómo quién qué cuál quanto quanta quanti quante quando dove come chi",
    "cosa quale perché onde quem quais qual hoeveel wanneer waar waarom wie wat welk hoe vaak",
    "tag tages jour année an día año giorno anno dag jaar",
    # Russian, Ukrainian
    "день год года году",
    "сколько скольких когда где куда кто что какой какая какое какие каком какую как почему зачем часто скільки коли",
    # Korean
    "무엇 언제 어디 누가 누구 어떻게 왜 몇 얼마나",
)
_SPACED: Final = frozenset(word for line in _SPACED_WORDS for word in line.split())
_WORD: Final = re.compile(r"[^\s?!.,;:؟।،；？！]+")


def without_question_words(question: str, language: str) -> str:
    """A question without the words that ask: they are not in its answer.

    English has them among the stop words of its analyzer; Snowball's other lists lack some or all.

    Args:
        question: The question.
        language: ISO 639-1 code of the text that it is asked of.

    Example:
        >>> without_question_words("东京的人口是多少？", "zh").split()
        ['东京', '人口', '？']
    """
    if language == "en":
        return question
    kept = _WORD.sub(lambda word: "" if word[0].lower() in _SPACED else word[0], question)
    return _UNSPACED.sub(" ", kept)
