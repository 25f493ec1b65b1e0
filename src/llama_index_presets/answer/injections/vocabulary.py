"""Words of the rules of the detector of instructions, as parts of patterns. Pure data."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ANSWERING",
    "ANY",
    "ASKED",
    "DROP",
    "DROPPING",
    "EARLIER",
    "FIRST",
    "GAP",
    "KEEP",
    "LEAKED",
    "MODEL",
    "MODELS",
    "ORDERS",
    "PEOPLE",
    "PLACES",
    "SECRETS",
    "SHOW",
    "SURE_MODEL",
    "TALK",
    "TELL",
    "USER",
    "WHERE",
]

# Vocabulary. {a} is anything within a sentence, kept short.
GAP: Final = r"[^.!?\n]{0,60}?"
ANY: Final = r"[^\n]{0,120}?"
ORDERS: Final = (
    r"(?:instructions?|prompts?|directions?|directives?|commands?|orders?|rules?|guidelines?|guardrails?|constraints?|"
    r"restrictions?|polic(?:y|ies)|safeguards?|programming|training|filters?|safety (?:rules?|measures?|guidelines?))"
)
EARLIER: Final = (
    r"(?:previous(?:ly)?|prior|above|preceding|earlier|existing|original|initial|former|foregoing|system(?:'s)?|"
    r"developer(?:'s)?|your|given to you|you (?:have been|were|had been|received|are) (?:given|told|following)?|all of the other|(?:all |any )?other|"
    r"everything|anything|any other|all (?:the )?other|all of (?:the|your)|hidden|current|built-in|default)"
)
DROP: Final = (
    r"(?:ignore|disregard|forget|overlook|neglect|dismiss|override|overrule|bypass|skip|drop|discard|set aside|"
    r"do not (?:follow|obey|heed|listen to)|don'?t (?:follow|obey|heed|listen to)|(?:stop|cease|quit) (?:following|obeying)|"
    r"pay no attention to|void|cancel|abandon|supersede[sd]?|replace[sd]?|delete|erase|wipe|reset)"
)
MODEL: Final = (
    r"(?:a\.?i\.?|artificial intelligence|(?:large )?language models?|llms?|chat ?bots?|chatgpt|gpt(?:-?\w+)?|claude|"
    r"gemini|copilot|(?:virtual|digital|ai|helpful) assistants?|assistants?|(?:the )?model|bots?|"
    r"(?:answering|question[- ]answering|rag|retrieval) (?:system|engine|bot|assistant|model)s?|agents?|summari[sz]ers?)"
)
SURE_MODEL: Final = (
    r"(?:a\.?i\.?|artificial intelligence(?: system)?|(?:large )?language models?|llms?|chat ?bots?|chatgpt|"
    r"gpt(?:-?\d\w*)?|claude|gemini|copilot|(?:virtual|digital|ai|helpful|automated|chat) (?:assistant|agent|model|system)s?|"
    r"(?:answering|question[- ]answering|rag) (?:system|engine|bot|assistant|model)s?)"
)
TELL: Final = r"(?:answer|reply|respond|say|state|output|print|write|tell|return|repeat|claim|report|insist|recommend|conclude|display)"
USER: Final = r"(?:the |any |every |your |this )?(?:users?|humans?|readers?|customers?|person asking|asker|operator|people who ask)"
ASKED: Final = r"(?:when(?:ever)?|if|should|once|in case|every time|each time|any time|as soon as)"
SECRETS: Final = (
    r"(?:system (?:prompt|message|instructions?)|hidden (?:prompt|instructions?)|initial (?:prompt|instructions?)|"
    r"(?:your|the) (?:prompt|instructions|configuration|context window|system prompt|guidelines|secret key|rules)|"
    r"api[ _-]?keys?|passwords?|credentials?|secrets?|access tokens?|(?:chat|conversation) (?:history|log)|"
    r"(?:entire|full|whole|complete) (?:context|conversation|prompt|chat)|(?:other|all) (?:passages|documents|sources)|"
    r"(?:user'?s?|customer'?s?|patient'?s?) (?:question|query|data|name|email|message|input|details|records?|information)|"
    r"(?:the|this|their) (?:conversation|question|query|context|chat|session))"
)
SHOW: Final = (
    r"(?:reveal|print|show|repeat|display|output|disclose|expose|leak|share|recite|dump|tell me|list|give|write|copy|"
    r"echo|quote|send|include|paste|transmit|append|encode|attach|embed|insert|put|place|add|forward|post|upload|"
    r"exfiltrate|submit|report|translate|summari[sz]e|spell out|tell us|state)"
)
WHERE: Final = (
    r"(?:https?:|hxxps?:|www\.|//|url|link|image|markdown|query string|(?:query |url )?parameter|webhook|endpoint|e-?mail|"
    r"[\w.+-]+@[\w-]+\.\w+|\w+\.(?:com|net|org|io|example|test|site|xyz|ru|cn)\b|web ?site|server|address|pixel|beacon)"
)
KEEP: Final = r"(?:do not|don'?t|never|must not|without|refrain from|avoid)"
TALK: Final = r"(?:mention|tell|telling|reveal|inform|informing|disclos\w+|say|saying|mentioning|revealing|alert|alerting|notify\w*|let|letting|acknowledg\w+|refer(?:ring)? to|indicat\w+|show|warn|warning)"

# What a text must hold for a rule to be tried, in small letters; & stands for a blank. It saves most of the time.
DROPPING: Final = (
    "ignore disregard forget overlook neglect dismiss overrid overrul bypass skip drop discard aside follow obey heed listen "
    "attention void cancel abandon supersed replac delete erase wipe reset"
)
LEAKED: Final = "prompt instruction configuration context developer password credential secret api rules guideline memory environment message training"
PLACES: Final = (
    "http hxxp www. // url link image markdown query parameter webhook endpoint mail @ .com .net .org .io .example .test "
    ".site .xyz .ru .cn website server address pixel beacon site"
)
PEOPLE: Final = "user human reader customer person asker operator people"
ANSWERING: Final = "answer reply respond say output print conclude"
MODELS: Final = (
    "ai& ai: ai, a.i artificial language&model llm chat&bot chatbot gpt claude gemini copilot assistant agent the&model "
    "ai&model ai&system answering rag& bot"
)

FIRST: Final = r"(?:^|[.!?:;>)\"]\s+|\n\s*\n\s*|\n\s*[-*•]\s+)(?:please |kindly |just |now,? |then |instead,? |also,? |simply |only |you must |you should )*"
