variable "code_bucket" {
  description = "Bucket that holds the code archive."
  type        = string
}

variable "code_key" {
  description = "Key of the code archive in that bucket, code/SHA256.tar.gz."
  type        = string
}

variable "code_sha256" {
  description = "SHA-256 of the code archive, in lower-case hexadecimal."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.code_sha256))
    error_message = "code_sha256 is \"${var.code_sha256}\"; give 64 hexadecimal digits (filesha256 of the archive)."
  }
}

variable "idle_minutes" {
  description = "The notebook is stopped after this long without use, in minutes."
  type        = number
  default     = 60

  validation {
    condition     = var.idle_minutes >= 5
    error_message = "idle_minutes is ${var.idle_minutes}; give at least 5 minutes, or nobody gets to open the notebook."
  }
}

variable "instance_type" {
  description = "SageMaker instance type of the notebook, such as ml.t3.medium."
  type        = string

  validation {
    condition     = startswith(var.instance_type, "ml.")
    error_message = "instance_type is ${var.instance_type}; SageMaker's types begin with \"ml.\", such as ml.t3.medium."
  }
}

variable "kms_key_arn" {
  description = "ARN of the KMS key that encrypts the notebook's volume."
  type        = string
}

variable "name" {
  description = "Name of the notebook, of its lifecycle configuration and of the folder that the code is put in."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}$", var.name))
    error_message = "name is \"${var.name}\"; use at most 63 letters, digits and inner hyphens."
  }
}

variable "platform_identifier" {
  description = "Notebook platform. Null takes SageMaker's own default, notebook-al2023-v1: hashicorp/aws 5.100 does not know that name yet and refuses it, later versions take it."
  type        = string
  default     = null

  validation {
    condition     = var.platform_identifier == null ? true : startswith(var.platform_identifier, "notebook-al2023-")
    error_message = "platform_identifier is ${coalesce(var.platform_identifier, "null")}, which AWS no longer supports; use notebook-al2023-v1, or null for SageMaker's default."
  }
}

variable "role_arn" {
  description = "ARN of the notebook's role. It needs sagemaker:StopNotebookInstance on the notebook itself, and to read the code archive."
  type        = string
}

variable "security_group_id" {
  description = "ID of the notebook's security group."
  type        = string
}

variable "submission" {
  description = "What model/submit.py needs to start a training job; written as model/submission.json."
  type = object({
    bucket             = string
    code_key           = string
    image_uri          = string
    instance_type      = string
    kms_key_arn        = string
    name               = string
    region             = string
    role_arn           = string
    security_group_ids = list(string)
    subnet_ids         = list(string)
  })
}

variable "subnet_id" {
  description = "ID of the private subnet; it needs a way to S3 and to the SageMaker API."
  type        = string
}

variable "volume_gb" {
  description = "Size of the notebook's volume, in GB."
  type        = number
  default     = 20

  validation {
    condition     = var.volume_gb >= 5 && var.volume_gb <= 16384
    error_message = "volume_gb is ${var.volume_gb}; SageMaker accepts 5 to 16384 GB."
  }
}
